"""An epoch is trained here: the LightningModule, the data module that sequences rounds, callbacks, the command line."""
