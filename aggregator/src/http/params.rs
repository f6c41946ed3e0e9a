//! Parameters of paths and queries: read once, refused by name with what is allowed.

use std::fmt;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Error;

/// The query, every parameter as text. A parameter that the route does not know is refused.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Error::Parameter {
                name: "query",
                rule: innermost(&rejection),
            }),
        }
    }
}

/// The path's parameters as text.
#[derive(Debug)]
pub(crate) struct InPath<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(path)) => Ok(Self(path)),
            Err(rejection) => Err(Error::Parameter {
                name: "path",
                rule: innermost(&rejection),
            }),
        }
    }
}

/// What an error says at its root: which parameter, and why not.
fn innermost(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), innermost)
}

/// The parameter as what it stands for.
pub(crate) fn parse<T: FromStr<Err: fmt::Display>>(
    name: &'static str,
    text: &str,
) -> Result<T, Error> {
    text.parse().map_err(|rule: T::Err| Error::Parameter {
        name,
        rule: rule.to_string(),
    })
}

/// The parameter as what it stands for, where it was given.
pub(crate) fn parse_given<T: FromStr<Err: fmt::Display>>(
    name: &'static str,
    text: Option<&str>,
) -> Result<Option<T>, Error> {
    text.map(|text| parse(name, text)).transpose()
}

/// The one of `allowed` that was given.
pub(crate) fn one_of(
    name: &'static str,
    text: Option<&str>,
    allowed: &[&'static str],
) -> Result<Option<&'static str>, Error> {
    text.map(|text| {
        let known = allowed.iter().find(|word| **word == text).copied();
        known.ok_or_else(|| Error::Parameter {
            name,
            rule: format!("one of {}", allowed.join(", ")),
        })
    })
    .transpose()
}
