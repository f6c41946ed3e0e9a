//! Who calls, by mTLS, as the aggregator's own proxy says in `x-forwarded-client-cert`: the namespace of the
//! caller's SPIFFE id. A workload may speak only for services of its namespace.

use axum::http::HeaderMap;
use kaeru_protocol::{ProblemType, ServiceName, headers};

use super::problem::Error;

/// The namespace and service account of the caller's certificate, where a proxy says it.
pub(crate) fn workload(headers: &HeaderMap) -> Option<(&str, &str)> {
    let value = headers.get(headers::CLIENT_CERT)?.to_str().ok()?;
    // A proxy appends what it saw: the last element is the nearest hop.
    let nearest = split_outside_quotes(value, ',').last()?;
    let uri = split_outside_quotes(nearest, ';').find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        key.eq_ignore_ascii_case("URI")
            .then(|| value.trim_matches('"'))
    })?;
    // spiffe://<trust domain>/ns/<namespace>/sa/<service account>
    let mut parts = uri.strip_prefix("spiffe://")?.split('/').skip(1);
    let (ns, namespace, sa, account) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (ns == "ns" && sa == "sa").then_some((namespace, account))
}

/// Refuses a caller that may not speak for `service`.
pub(crate) fn check(
    headers: &HeaderMap,
    service: &ServiceName,
    is_required: bool,
) -> Result<(), Error> {
    let refused = |detail: String| {
        Err(Error::Refused {
            problem: ProblemType::IdentityMismatch,
            detail,
        })
    };
    let claimed = service.as_str().split('/').next();
    match workload(headers).map(|(namespace, _)| namespace) {
        None if headers.contains_key(headers::CLIENT_CERT) || is_required => refused(format!(
            "{} names no SPIFFE id, so nobody may speak for {service}",
            headers::CLIENT_CERT
        )),
        Some(namespace) if Some(namespace) != claimed => refused(format!(
            "a workload of namespace {namespace} may not speak for {service}"
        )),
        _ => Ok(()),
    }
}

fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let mut is_escaped = false;
    text.split(move |c| {
        let was_escaped = is_escaped;
        is_escaped = c == '\\' && !was_escaped;
        if c == '"' && !was_escaped {
            is_quoted = !is_quoted;
        }
        c == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::{check, workload};

    fn with(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-client-cert", value.parse().unwrap());
        headers
    }

    #[test]
    fn the_nearest_hop_counts() {
        for (value, expected) in [
            (
                "By=spiffe://c/ns/kaeru/sa/a;URI=spiffe://c/ns/shop/sa/web",
                Some("shop"),
            ),
            (
                "URI=spiffe://c/ns/far/sa/x, Hash=1;URI=spiffe://c/ns/shop/sa/web",
                Some("shop"),
            ),
            (
                r#"Subject="CN=a,b;URI=spiffe://c/ns/evil/sa/x";URI=spiffe://c/ns/shop/sa/web"#,
                Some("shop"),
            ),
            (
                r#"Subject="a\"";URI="spiffe://c/ns/shop/sa/web""#,
                Some("shop"),
            ),
            ("URI=https://c/ns/shop", None),
            ("Hash=1", None),
            ("", None),
        ] {
            assert_eq!(
                workload(&with(value)).map(|(namespace, _)| namespace),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn a_workload_speaks_for_its_namespace() {
        let shop = "shop/web".parse().unwrap();
        let caller = with("URI=spiffe://c/ns/shop/sa/web");
        assert!(check(&caller, &shop, true).is_ok());
        assert!(check(&caller, &"bank/web".parse().unwrap(), false).is_err());
        assert!(check(&with("Hash=1"), &shop, false).is_err());
        assert!(check(&HeaderMap::new(), &shop, false).is_ok());
        assert!(check(&HeaderMap::new(), &shop, true).is_err());
    }
}
