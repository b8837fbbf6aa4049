//! A software device.
