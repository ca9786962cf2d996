"""Training: the LightningModule, the data module that runs one round per epoch, callbacks, the command line."""
