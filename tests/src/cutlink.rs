//! A link that can be cut: a TCP proxy on loopback that breaks or stalls the connections through it, on command or
//! after a number of bytes.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Granularity of a cut, and so small that a stall takes effect at once.
const PIECE: usize = 16 << 10;
const NAP: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
struct State {
    /// Bytes that went through, both directions.
    passed: AtomicU64,
    /// Cut when so many have passed; 0: never.
    cut_at: AtomicU64,
    cuts: AtomicU64,
    down: AtomicBool,
    stalled: AtomicBool,
    closed: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

/// Closed when dropped.
#[derive(Debug)]
pub struct CutLink {
    state: Arc<State>,
    port: u16,
}

impl CutLink {
    pub fn to(target: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let state = Arc::<State>::default();
        let accepting = Arc::clone(&state);
        thread::spawn(move || accept(&listener, target, &accepting));
        Ok(Self { state, port })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes that went through, both directions: what is on the wire, TLS included.
    pub fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::SeqCst)
    }

    /// Breaks all connections after `bytes` more; new ones are let through again.
    pub fn cut_after(&self, bytes: u64) {
        self.state.cut_at.store(self.passed() + bytes, Ordering::SeqCst);
    }

    /// How often it was cut.
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// Breaks all connections now and refuses new ones until `up`.
    pub fn down(&self) {
        self.state.down.store(true, Ordering::SeqCst);
        self.state.cut();
    }

    pub fn up(&self) {
        self.state.down.store(false, Ordering::SeqCst);
    }

    /// Lets nothing through, without closing anything: a link that hangs.
    pub fn stall(&self) {
        self.state.stalled.store(true, Ordering::SeqCst);
    }

    pub fn flow(&self) {
        self.state.stalled.store(false, Ordering::SeqCst);
    }
}

impl Drop for CutLink {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.state.cut();
    }
}

impl State {
    fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
        for stream in self.streams.lock().expect("no holder panics").drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn count(&self, bytes: usize) {
        let passed = self.passed.fetch_add(bytes as u64, Ordering::SeqCst) + bytes as u64;
        let at = self.cut_at.load(Ordering::SeqCst);
        if at > 0 && passed >= at && self.cut_at.compare_exchange(at, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.cut();
        }
    }
}

fn accept(listener: &TcpListener, target: u16, state: &Arc<State>) {
    while !state.closed.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) if state.down.load(Ordering::SeqCst) => drop(stream),
            Ok((stream, _)) => {
                // The other end may be down; then the caller sees a closed connection.
                let _ = connect(stream, target, state);
            }
            Err(_) => thread::sleep(NAP),
        }
    }
}

fn connect(near: TcpStream, target: u16, state: &Arc<State>) -> io::Result<()> {
    near.set_nonblocking(false)?;
    let far = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, target)))?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        state.streams.lock().expect("no holder panics").push(stream.try_clone()?);
    }
    for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
        let state = Arc::clone(state);
        thread::spawn(move || pump(from, to, &state));
    }
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut piece = [0; PIECE];
    while let Ok(got @ 1..) = from.read(&mut piece) {
        while state.stalled.load(Ordering::SeqCst) && !state.closed.load(Ordering::SeqCst) {
            thread::sleep(NAP);
        }
        if to.write_all(&piece[..got]).is_err() {
            break;
        }
        state.count(got);
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
