//! One service of the shop as a program; see [`kaeru_e2e::shop`].

use std::net::SocketAddr;

use clap::Parser;
use kaeru_e2e::shop::{Role, serve};

/// Plays one service of the shop.
#[derive(Debug, Parser)]
struct Args {
    /// Who to play.
    role: Role,
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// The outbound listener of its sidecar, through which it calls the others.
    #[arg(long)]
    sidecar: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    serve(args.role, args.listen, args.sidecar).await
}
