//! A service that costs next to nothing: it answers each request of a connection at once, as its head says.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How a request is answered, by its head (lower-case names, as Envoy sends them).
pub(crate) type Answer = dyn Fn(&str) -> Vec<u8> + Send + Sync;

/// 1 KiB of answer, as in Istio's own load tests.
pub(crate) fn usual(_head: &str) -> Vec<u8> {
    let body = "x".repeat(1_024);
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Listens until the runtime ends.
pub(crate) async fn serve(at: SocketAddr, answer: Arc<Answer>) -> Result<()> {
    let listener = TcpListener::bind(at).await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream, answer.clone()));
        }
    });
    Ok(())
}

async fn talk(mut stream: TcpStream, answer: Arc<Answer>) {
    let _ = stream.set_nodelay(true);
    let mut bytes = Vec::with_capacity(4_096);
    loop {
        while let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let reply = {
                let text = String::from_utf8_lossy(&bytes[..head]);
                answer(&text)
            };
            bytes.drain(..head + 4);
            if stream.write_all(&reply).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
