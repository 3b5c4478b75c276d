//! Builds the stages from settings, joins their channels, starts and stops them.
