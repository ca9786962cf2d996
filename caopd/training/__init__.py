"""Training: the LightningModule, the data module that runs one round per epoch, callbacks, and Lightning's command line."""
