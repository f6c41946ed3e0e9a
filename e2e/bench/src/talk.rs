//! One kept connection that sends a request and waits for its answer, for senders that are tasks.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::load::whole;

/// A connection.
pub(crate) struct Talk {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Talk {
    pub(crate) async fn with(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).await;
        let stream = stream.with_context(|| format!("connect to {to}"))?;
        stream.set_nodelay(true)?;
        let answer = Vec::new();
        Ok(Self { stream, answer })
    }

    /// The status of the answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        loop {
            if let Some((status, length)) = whole(&self.answer)? {
                self.answer.drain(..length);
                return Ok(status);
            }
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("the connection was closed");
            }
        }
    }
}
