//! The status page, for whoever operates the process: does it live, does it work, what has it done.
//!
//! ```text
//! GET /livez     200 as long as the process serves anything at all
//! GET /readyz    200 once every group knows its queues, 503 before that and from the begin of a shutdown on
//! GET /metrics   what consumers and producers have done, as Prometheus reads it
//! ```
//!
//! `app` starts it before anything is connected, so that a start that waits for its name servers can be parts, and ends
//! it last. It reads what consumers and producers count anyway; nothing is counted for it.

mod metrics;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time;
use tracing::{debug, info, warn};

use super::parts::Parts;
use crate::tasks::Tasks;

/// Connections at the same time; the next one waits. Probes and scrapers need one each.
const MAX_CONNECTIONS: usize = 32;
/// How long a peer may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// What a request's head may take, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// After the system had no connection to give, as when the process has no file descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long answers that are on their way get at the end.
const END: Duration = Duration::from_secs(1);

/// The page, being served.
#[derive(Debug)]
pub(super) struct StatusPage {
    address: SocketAddr,
    tasks: Tasks,
}

impl StatusPage {
    /// Serves what there is to say of `parts` at `address`, until [`shutdown`](Self::shutdown).
    ///
    /// # Errors
    ///
    /// Where the address cannot be listened on.
    pub(super) async fn start(address: SocketAddr, parts: Parts) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let tasks = Tasks::default();
        let (listener, parts) = (Arc::new(listener), Arc::new(parts));
        let serving = tasks.clone();
        tasks.spawn_lasting("status page", move || {
            accept(Arc::clone(&listener), Arc::clone(&parts), serving.clone())
        });
        info!(%address, "the status page is served: /livez /readyz /metrics");
        Ok(Self { address, tasks })
    }

    /// Where it is served.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn shutdown(&self) {
        self.tasks.cancel();
        let open = self.tasks.join(END).await;
        if open > 0 {
            debug!(open, "connections of the status page did not end in time");
        }
    }
}

async fn accept(listener: Arc<TcpListener>, parts: Arc<Parts>, tasks: Tasks) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let stopping = tasks.stopping().clone();
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stopping.cancelled() => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let (parts, stopping) = (Arc::clone(&parts), stopping.clone());
                tasks.spawn("status page's connection", async move {
                    tokio::select! {
                        () = stopping.cancelled() => {}
                        () = serve(stream, parts) => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "the status page could not take a connection");
                time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, parts: Arc<Parts>) {
    let answer = service_fn(|request: Request<Incoming>| {
        let response = respond(&parts, request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), answer).await {
        // A scanner, or a probe that lost patience.
        debug!(%error, "a connection of the status page ended early");
    }
}

fn respond(parts: &Parts, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "the status page can only be read\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => readiness(parts),
        "/metrics" => {
            let mut response = text(StatusCode::OK, metrics::write(parts));
            let form = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, form);
            response
        }
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n"),
    }
}

/// `ok`, or a line for each group that is not ready.
fn readiness(parts: &Parts) -> Response<Full<Bytes>> {
    if parts.stopping.is_cancelled() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the application is stopping\n");
    }
    let missing: String = parts
        .consumers
        .iter()
        .filter(|member| !member.consumer.is_ready())
        .map(|member| {
            let (group, state) = (&member.group, member.consumer.state());
            format!("group {group} of cluster {}: {state}, not ready\n", member.cluster)
        })
        .collect();
    match missing.is_empty() {
        true => text(StatusCode::OK, "ok\n"),
        false => text(StatusCode::SERVICE_UNAVAILABLE, missing),
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
