//! Everything that Kaeru counts, in one table. Event ids are never labels.

use prometheus::{IntCounter, Registry};

macro_rules! metrics {
    ($($(#[doc = $help:literal])* $field:ident: $type:ty = $name:literal $(, [$($label:literal),+])?;)*) => {
        /// The table of metrics.
        #[derive(Debug)]
        pub(crate) struct Metrics {
            registry: Registry,
            $($(#[doc = $help])* pub(crate) $field: $type,)*
        }

        impl Metrics {
            /// All of them, registered.
            pub(crate) fn new() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(
                    let options = prometheus::Opts::new($name, concat!($($help),*).trim());
                    let $field = <$type>::with_opts(options)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, $($field),* })
            }
        }
    };
}

metrics! {
    /// Reports stored, each counted once.
    reports_stored: IntCounter = "kaeru_reports_stored_total";
}
