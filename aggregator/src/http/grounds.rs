//! What the policy says that a rule relied on, quoted by line from the version that was in force then.

use kaeru_flow::{Ground, Scope};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::policy_file::{Line, Lines};
use crate::store::{self, policies};

/// A version of the policy, to be quoted.
#[derive(Debug)]
pub(super) struct Quoted {
    version: u64,
    /// Absent for the built-in policy, and for a text that this Kaeru cannot read.
    lines: Option<Lines>,
}

/// What the policy says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quote {
    version: u64,
    ground: Ground,
    line: Option<Line>,
}

/// What the policy says that a rule relied on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PolicyLine)]
pub(super) struct QuoteView {
    /// The version of the policy; `null` for a built-in default.
    version: Option<u64>,
    /// The line in it, counted from 1; `null` for a built-in default.
    #[schema(example = 12)]
    line: Option<u64>,
    /// The line as it stands there.
    #[schema(example = "fatal: [402]")]
    text: Option<String>,
    /// Whom it speaks of: an event type, a service or host, `everything`, or `default`.
    #[schema(example = "host:payments.example.com")]
    scope: String,
    /// The key.
    #[schema(example = "fatal")]
    key: String,
    /// What it says of it.
    #[schema(example = "402")]
    says: String,
    /// In words.
    words: String,
}

impl Quoted {
    /// The version of the policy, from the store.
    pub(super) async fn read(connection: &mut PgConnection, version: u64) -> store::Result<Self> {
        let text = policies::text(connection, version.cast_signed()).await?;
        Ok(Self {
            version,
            lines: text.and_then(|text| Lines::read(&text).ok()),
        })
    }

    /// What it says on each of these grounds.
    pub(super) fn quotes(&self, grounds: &[Ground]) -> Vec<Quote> {
        let quote = |ground: &Ground| Quote {
            version: self.version,
            line: self.lines.as_ref().and_then(|lines| lines.find(ground)),
            ground: ground.clone(),
        };
        grounds.iter().map(quote).collect()
    }
}

impl Quote {
    /// In words, without a full stop.
    pub(super) fn words(&self) -> String {
        let Self {
            version,
            ground: Ground { scope, key, says },
            line,
        } = self;
        match (scope, line) {
            (Scope::Default, _) if *version == 0 => format!("the default `{key}: {says}`"),
            (Scope::Default, _) => {
                format!(
                    "the default `{key}: {says}`, about which policy version {version} says nothing"
                )
            }
            (scope, Some(Line { number, text })) => {
                format!("policy version {version}, line {number}, {scope}: `{text}`")
            }
            (scope, None) => format!(
                "policy version {version}, {scope}: `{key}: {says}` (its text cannot be read here any more)"
            ),
        }
    }
}

impl From<&Quote> for QuoteView {
    fn from(quote: &Quote) -> Self {
        let Ground { scope, key, says } = &quote.ground;
        let (line, text) = quote
            .line
            .clone()
            .map(|line| (line.number, line.text))
            .unzip();
        Self {
            version: (*scope != Scope::Default).then_some(quote.version),
            line,
            text,
            scope: match scope {
                Scope::Default => "default".to_owned(),
                Scope::Global => "everything".to_owned(),
                Scope::EventType(name) => name.to_string(),
                Scope::Service(peer) => peer.to_string(),
            },
            key: key.to_string(),
            says: says.to_string(),
            words: quote.words(),
        }
    }
}
