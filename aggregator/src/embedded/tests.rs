use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::{ConnectOptions as _, Connection as _};

use super::{Cluster, Error, SOCKET_FILE, SOCKET_PATH_MAX, socket_folder};
use crate::testing::{STOP_POSTGRES, folder};

fn postmaster(folder: &Path) -> String {
    let file = fs::read_to_string(folder.join("postgres/postmaster.pid")).unwrap();
    file.lines().next().unwrap().to_owned()
}

async fn answers(cluster: &Cluster) -> bool {
    let options = cluster.database().await.unwrap();
    let mut connection = options.connect().await.unwrap();
    connection.ping().await.is_ok()
}

#[tokio::test]
async fn it_starts_survives_its_owner_and_stops() {
    let folder = folder("embedded", STOP_POSTGRES);
    let first = Cluster::start(&folder, false).await.unwrap();
    assert!(answers(&first).await);
    assert!(matches!(
        Cluster::start(&folder, false).await,
        Err(Error::InUse(_))
    ));
    // Killed: its lock goes, its Postgres stays, and the next one takes it over.
    let survivor = postmaster(&folder);
    drop(first);
    let second = Cluster::start(&folder, false).await.unwrap();
    assert_eq!(postmaster(&folder), survivor);
    assert!(answers(&second).await);
    // Postgres itself killed: it is started again, though it left its files behind.
    let status = Command::new("kill")
        .args(["-9", &survivor])
        .status()
        .unwrap();
    assert!(status.success());
    while Path::new("/proc").join(&survivor).exists() {
        tokio::task::yield_now().await;
    }
    second.ensure_running().await.unwrap();
    assert_ne!(postmaster(&folder), survivor);
    assert!(answers(&second).await);
    second.stop().await.unwrap();
    assert!(!folder.join("postgres/postmaster.pid").exists());
    drop(second);
    let third = Cluster::start(&folder, false).await.unwrap();
    assert!(answers(&third).await);
    third.stop().await.unwrap();
}

#[test]
fn a_socket_path_is_never_too_long() {
    let near = PathBuf::from("/var/lib/kaeru");
    assert_eq!(socket_folder(&near), near.join("socket"));
    let far = PathBuf::from(format!("/{}", "long/".repeat(30)));
    let socket = socket_folder(&far);
    assert!(socket.starts_with("/tmp"));
    assert!(socket.as_os_str().len() + SOCKET_FILE.len() <= SOCKET_PATH_MAX);
    assert_eq!(socket, socket_folder(&far));
    assert_ne!(socket, socket_folder(&far.join("other")));
}
