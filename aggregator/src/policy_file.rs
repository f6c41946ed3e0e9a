//! The policy as its YAML file says it.
