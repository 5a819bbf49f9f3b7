"""One file per device: ``base`` is the contract, ``cpu`` its specification."""
