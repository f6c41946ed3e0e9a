//! What can go wrong while answering, and the one match that makes problem+json of it (RFC 9457).

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use kaeru_protocol::{Problem, ProblemType};

use crate::store;

/// Seconds after which a refused caller may try again.
const RETRY_AFTER_S: u32 = 1;

/// Why a request was not answered as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A path or query parameter is not what it must be.
    #[error("{name}: {rule}")]
    Parameter {
        /// Which one.
        name: &'static str,
        /// What is allowed.
        rule: String,
    },
    /// There is no such thing.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// `event-not-found` and its kin.
        problem: ProblemType,
        /// What was looked for: "event".
        what: &'static str,
        /// By which name.
        name: String,
    },
    /// Any other problem, in words.
    #[error("{detail}")]
    Refused {
        /// Which.
        problem: ProblemType,
        /// This case.
        detail: String,
    },
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// Which problem it is.
    pub(crate) fn problem_type(&self) -> ProblemType {
        match self {
            Self::Parameter { .. } => ProblemType::InvalidParameter,
            Self::NotFound { problem, .. } | Self::Refused { problem, .. } => *problem,
            Self::Store(store::Error::Unavailable(_)) => ProblemType::StoreUnavailable,
            Self::Store(store::Error::Statement(_) | store::Error::Unreadable { .. }) => {
                ProblemType::Internal
            }
        }
    }

    fn problem(&self) -> Problem {
        let detail = match self.problem_type() {
            ProblemType::StoreUnavailable => {
                "the database does not answer; nothing was taken, send it again".to_owned()
            }
            // What the store said is for the log.
            ProblemType::Internal => "Kaeru is at fault; its log says how".to_owned(),
            _ => self.to_string(),
        };
        Problem::new(self.problem_type(), detail)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if let Self::Store(error) = &self {
            tracing::warn!(
                error = %error,
                source = std::error::Error::source(error).map(tracing::field::display),
                "a request was not answered"
            );
        }
        answer(&self.problem())
    }
}

/// The problem as a response.
pub(crate) fn answer(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    response
}

/// For paths that no route has.
pub(crate) async fn no_route(uri: Uri) -> Response {
    answer(&Problem::new(
        ProblemType::RouteNotFound,
        format!("no route has the path {}", uri.path()),
    ))
}

/// For methods that the route does not take.
pub(crate) async fn no_method(method: Method, uri: Uri) -> Response {
    answer(&Problem::new(
        ProblemType::MethodNotAllowed,
        format!("{} does not take {method}", uri.path()),
    ))
}
