//! Starts the server processes of the benchmarks `abuse` and `durable`, and builds the HTTP requests that the benchmarks send.

use std::error::Error;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use hookhold::verify::sign::Sample;

/// Result with any type of error, for use in the benchmarks.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Returns two loopback addresses with different unused ports.
pub fn free_addresses() -> Result<[SocketAddr; 2]> {
    let (first, second) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok([first.local_addr()?, second.local_addr()?])
}

/// Returns a command that runs the `hookhold` binary of this build. The caller adds the arguments.
pub fn hookhold() -> Command {
    Command::new(env!("CARGO_BIN_EXE_hookhold"))
}

/// A server process. Dropping the value kills the process.
pub struct Server(pub Child);

impl Server {
    /// Starts the process and waits until the process accepts connections on `address`.
    pub fn start(command: &mut Command, address: SocketAddr) -> Result<Server> {
        let server = Server(command.spawn()?);
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            if started.elapsed() > Duration::from_secs(20) {
                return Err("the server did not listen within 20 s; run the server by hand to see its log".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the bytes of the HTTP request that contains the signed delivery `sample`.
pub fn request_bytes(sample: &Sample) -> Vec<u8> {
    let mut request = format!("POST {} HTTP/1.1\r\nhost: localhost\r\n", sample.target).into_bytes();
    for (name, value) in &sample.headers {
        request.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    request.extend_from_slice(format!("content-length: {}\r\n\r\n", sample.body.len()).as_bytes());
    request.extend_from_slice(&sample.body);
    request
}
