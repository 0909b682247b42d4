"""Floor 1, physics: models of the signal, the acquisition, tissue values. It knows no phantom and no estimator."""
