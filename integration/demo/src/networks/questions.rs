//! What `collective network` says, compared with what happens.

use super::{COMMAND, LAB, Lab, address, nat, nic};
use crate::stage::Stage;
use anyhow::Context as _;
use playground::layout::PERSON_ADDRESS;
use std::time::{Duration, Instant};

/// What the server may ask the desk for, and what it may not although the desk would answer.
const ALLOWED: u16 = 80;
const FORBIDDEN: u16 = 81;
/// Requests during a capture.
const REQUESTS: usize = 5;
/// A capture's length in seconds: long enough for the requests on a busy machine.
const CAPTURE_SECONDS: &str = "6";

impl Stage {
    /// Explanations and captures.
    pub(super) async fn questions(&mut self, lab: &mut Lab) {
        self.claims.step("collective network explain, and collective network capture");
        let found = self.explanations(lab).await;
        self.conclude("`collective network explain` says of a frame what happens to it", found);
        let found = self.way_out_explained().await;
        self.conclude("and of one to the world outside, by which router it goes", found);
        let found = self.capture(lab).await;
        self.conclude(
            "`collective network capture` writes every frame of a port as pcapng that tcpdump reads",
            found,
        );
    }

    async fn explanations(&self, lab: &mut Lab) -> anyhow::Result<(bool, String)> {
        let desk = address(&lab.desk)?;
        // Something listens: what is refused is refused by the rules.
        let (listens, said) =
            lab.shells.desk.run(&format!("httpd -p 0.0.0.0:{FORBIDDEN} -h /srv"), COMMAND).await?;
        anyhow::ensure!(listens == 0, "the desk serves no second port: {said}");
        let (mut agrees, mut evidence) = (true, Vec::new());
        for port in [ALLOWED, FORBIDDEN] {
            let get = format!("timeout 4 wget -q -O /dev/null http://{desk}:{port}/instance");
            let (code, _) = lab.shells.server.run(&get, COMMAND).await?;
            let (from, to, tcp) = (format!("{LAB}/server"), format!("{LAB}/desk"), port.to_string());
            let (verdict, text) =
                self.cli.answer(&["network", "explain", &from, &to, "--tcp", &tcp, "--prove"]).await?;
            let (passes, proven) = match verdict {
                0 => (true, "tried: it passes"),
                1 => (false, "tried: it is dropped"),
                other => anyhow::bail!("`collective network explain` ended with {other}: {text}"),
            };
            agrees &= passes == (port == ALLOWED) && passes == (code == 0) && text.contains(proven);
            agrees &= !text.contains("But when tried");
            let why = text.lines().find(|line| line.starts_with(if passes { "  +" } else { "  -" }));
            evidence.push(format!("tcp {port}: wget {code}, explain {verdict},{}", why.unwrap_or_default()));
        }
        Ok((agrees, evidence.join("; ")))
    }

    /// What was let through and what was dropped when the desk spoke with a server outside.
    async fn way_out_explained(&self) -> anyhow::Result<(bool, String)> {
        let (from, to) = (format!("{LAB}/desk"), PERSON_ADDRESS.to_string());
        let explain = async |port: u16| {
            let tcp = port.to_string();
            self.cli.answer(&["network", "explain", &from, &to, "--tcp", &tcp]).await
        };
        let ((passes, text), (drops, _)) = (explain(nat::ALLOWED).await?, explain(nat::FORBIDDEN).await?);
        let way = text.lines().find(|line| line.contains("goes to the network's router"));
        Ok((
            passes == 0 && drops == 1 && way.is_some(),
            format!(
                "tcp {}: {passes}, {}; tcp {}: {drops}",
                nat::ALLOWED,
                way.unwrap_or(&text).trim(),
                nat::FORBIDDEN
            ),
        ))
    }

    async fn capture(&self, lab: &mut Lab) -> anyhow::Result<(bool, String)> {
        let file = self.work.join("desk.pcapng");
        let (of, path) = (format!("{LAB}/desk"), file.to_str().context("no UTF-8 name")?);
        let arguments = ["network", "capture", &of, "-w", path, "--seconds", CAPTURE_SECONDS];
        let capture = self.cli.answer(&arguments);
        let requests = async {
            // The file is there as soon as frames are taken.
            let until = Instant::now() + COMMAND;
            while !file.exists() {
                anyhow::ensure!(Instant::now() < until, "no capture began");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let desk = address(&lab.desk)?;
            let get = format!("wget -q -O /dev/null http://{desk}/instance || exit 1");
            let (code, _) = lab
                .shells
                .server
                .run(&format!("(for i in $(seq {REQUESTS}); do {get}; done)"), COMMAND)
                .await?;
            anyhow::ensure!(code == 0, "the server does not reach the desk");
            // Neither may: the server's attempt never comes to the desk's port, the desk's own goes in there.
            let refused = |to| format!("timeout 1 wget -q -O /dev/null http://{to}:{FORBIDDEN}/");
            lab.shells.server.run(&refused(desk), COMMAND).await?;
            lab.shells.desk.run(&refused(address(&lab.server)?), COMMAND).await
        };
        let (captured, done) = tokio::join!(capture, requests);
        done?;
        let (code, text) = captured?;
        anyhow::ensure!(code == 0, "`collective network capture` ended with {code}: {text}");
        let read = |filter: &str| -> anyhow::Result<usize> {
            let output = std::process::Command::new("tcpdump").args(["-n", "-r", path, filter]).output()?;
            let problem = String::from_utf8_lossy(&output.stderr);
            anyhow::ensure!(output.status.success(), "tcpdump -r: {}", problem.trim());
            Ok(String::from_utf8_lossy(&output.stdout).lines().count())
        };
        let server = nic(&lab.server, "eth0")?.mac;
        let opened =
            read(&format!("ether src {server} and tcp[tcpflags] == tcp-syn and dst port {ALLOWED}"))?;
        let answered = read(&format!("tcp[tcpflags] == tcp-syn|tcp-ack and src port {ALLOWED}"))?;
        let own = nic(&lab.desk, "eth0")?.mac;
        let tried = read(&format!("ether src {own} and dst port {FORBIDDEN}"))?;
        let strange = read(&format!("ether src {server} and dst port {FORBIDDEN}"))?;
        Ok((
            opened == REQUESTS && answered == REQUESTS && tried > 0 && strange == 0,
            format!(
                "{REQUESTS} requests made, {opened} openings and {answered} answers in the file; of what rules drop {tried} frames of the guest's own and {strange} for it; {}",
                text.trim()
            ),
        ))
    }
}
