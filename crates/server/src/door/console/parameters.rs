//! What stands behind the `?` of a request. Each route says which parameters it knows, and any other is refused: a filter
//! that nobody looks at answers another question.

use axum::extract::{FromRequestParts, Query, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::outcome::{Kind, Refusal};

/// Lets through what asks by no parameter that the route does not know.
pub(super) async fn known(
    State(names): State<&'static [&'static str]>,
    Asked(asked): Asked<Vec<(String, String)>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    match asked.iter().find(|(name, _)| !names.contains(&name.as_str())) {
        None => Ok(next.run(request).await),
        Some((unknown, _)) if names.is_empty() => {
            Err(refusal(format!("{unknown:?} is no parameter here: there are none")))
        }
        Some((unknown, _)) => {
            Err(refusal(format!("{unknown:?} is no parameter here: there are {}", names.join(", "))))
        }
    }
}

/// The parameters of a request, as a route reads them.
#[derive(Debug)]
pub(super) struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(asked)) => Ok(Asked(asked)),
            Err(rejection) => Err(refusal(rejection.body_text())),
        }
    }
}

fn refusal(message: String) -> Refusal {
    Refusal::new(Kind::Malformed, "parameter", message)
}
