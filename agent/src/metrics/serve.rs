//! Plain HTTP/1 for the scraper: `GET /metrics`, nothing else.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

/// Scrapers at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 8;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
#[error("listen for metrics on {address}")]
pub struct ServeError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// `text` is called for each scrape, on a blocking lane if it needs one.
pub async fn serve<F, T>(address: SocketAddr, text: F, stop: CancellationToken) -> Result<(), ServeError>
where
    F: Fn() -> T + Clone + Send + Sync + 'static,
    T: Future<Output = String> + Send + 'static,
{
    let listener = TcpListener::bind(address).await.map_err(|source| ServeError { address, source })?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let place = places.clone().acquire_owned().await.expect("never closed");
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors, most likely: do not spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let (text, stop) = (text.clone(), stop.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, text.clone()));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    // A scraper that goes away in the middle is its own business.
                    _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection) => {}
                    () = stop.cancelled() => {}
                }
                drop(place);
            });
        }
    });
    Ok(())
}

async fn answer<F, T>(request: Request<Incoming>, text: F) -> Result<Response<Full<Bytes>>, Infallible>
where
    F: Fn() -> T,
    T: Future<Output = String>,
{
    let mut response = Response::new(Full::default());
    if request.method() != Method::GET || request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
        *response.body_mut() = Full::from("GET /metrics\n");
        return Ok(response);
    }
    let kind = header::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    *response.body_mut() = Full::from(text().await);
    Ok(response)
}
