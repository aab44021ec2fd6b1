//! The quickstart's dialogue in Rust, with the standard library alone.
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

const WRITE: &str = r#"{"type":"REQUEST","action":"write","service":"s","targets":["rust"],"values":["from rust"]}"#;
const READ: &str = r#"{"type":"REQUEST","action":"read","service":"s","targets":["rust"]}"#;

fn main() -> std::io::Result<()> {
    let folder = std::env::var("XDG_RUNTIME_DIR").expect("XDG_RUNTIME_DIR");
    let connection = UnixStream::connect(format!("{folder}/keychain-auth/agent.sock"))?;
    let mut replies = BufReader::new(connection.try_clone()?).lines();
    for request in [WRITE, READ] {
        writeln!(&connection, "{request}")?;
        println!("{}", replies.next().expect("a reply")?);
    }
    Ok(())
}
