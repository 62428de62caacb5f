"""Where nodes run.  Everything above this package knows only `envctl.substrates.base`."""
