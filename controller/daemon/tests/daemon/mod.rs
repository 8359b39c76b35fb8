//! The binary, as a process.

use crate::support::DEADLINE;
use controller_client::Client;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A daemon; killed when dropped.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the daemon; the log's line `serving` says where it listens.
pub fn spawn(folder: &Path) -> (Killed, String) {
    let config = folder.join("collectived.toml");
    let text = format!(
        "state_dir = {:?}\nlisten = \"127.0.0.1:0\"\npublic_names = [\"127.0.0.1\"]\npolicies = \"/nonexistent\"\n",
        folder.join("state")
    );
    // Once: later the disk may be full.
    if !config.exists() {
        std::fs::write(&config, text).unwrap();
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_collectived"))
        .arg("--config")
        .arg(&config)
        .env("COLLECTIVE_LOG_FORMAT", "json")
        .env("COLLECTIVE_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let child = Killed(child);
    let (sender, receiver) = std::sync::mpsc::channel();
    // Reads on to the end, so that the daemon can always write.
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if line["message"] == "serving" {
                let _ = sender.send(line["listen"].as_str().unwrap_or_default().to_owned());
            }
        }
    });
    let listen = receiver.recv_timeout(DEADLINE).unwrap();
    (child, format!("https://{listen}"))
}

pub fn client(folder: &Path, url: &str) -> Client {
    let ca = std::fs::read_to_string(folder.join("state/ca.pem")).unwrap();
    let token = std::fs::read_to_string(folder.join("state/admin.token")).unwrap();
    Client::new(url, &ca, Some(token.trim())).unwrap()
}

pub fn site(number: usize) -> String {
    format!(
        "apiVersion: collective/v1\nkind: Site\nmetadata: {{name: s{number}}}\nspec:\n  lan: {{subnet: 10.0.0.0/24, first: 10.0.0.10, last: 10.0.0.20}}\n"
    )
}

/// The status of an answer to nobody in particular.
pub async fn get(folder: &Path, url: &str, path: &str) -> u16 {
    let authorities = chassis::tls::certificates(&folder.join("state/ca.pem")).unwrap();
    let tls = chassis::tls::anonymous_client_config(&authorities).unwrap();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap();
    client.get(format!("{url}{path}")).send().await.unwrap().status().as_u16()
}
