//! What NFS-Ganesha tells and does over D-Bus.
//!
//! Source: `ExportMgr` of nfs-ganesha (`src/support/export_mgr.c`), introspected on 4.3.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use zbus::{
    Connection, Message, connection,
    zvariant::{DynamicType, Structure, Type, Value},
};

use crate::{
    error::NfsError,
    table::{Access, Client},
};

const SERVICE: &str = "org.ganesha.nfsd";
const MANAGER: &str = "/org/ganesha/nfsd/ExportMgr";
const INTERFACE: &str = "org.ganesha.nfsd.exportmgr";
/// A server that is alive answers in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Of the options of a client (`src/include/export_mgr.h`): whether it may write content or metadata, and whether it may read them.
const WRITES: u32 = 0x0040 | 0x0100;
const READS: u32 = 0x0020 | 0x0080;

/// `(siyyiuuuuu)`: client, CIDR version, address, mask, protocol, anonymous uid and gid, expiry, options, which of them are its own.
type ClientRow = (String, i32, u8, u8, i32, u32, u32, u32, u32, u32);

/// A connection with a runtime of its own, since callers block.
pub(super) struct Bus {
    connection: Connection,
    runtime: Runtime,
}

/// An export as the server has it.
pub(super) struct Shown {
    pub(super) path: String,
    pub(super) pseudo: String,
    pub(super) clients: Vec<Client>,
}

impl Bus {
    /// The system's bus where no address is given.
    pub(super) fn connect(address: Option<&str>) -> Result<Self, NfsError> {
        let failed = |problem: String| NfsError::Server { what: "D-Bus".to_owned(), problem };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| failed(error.to_string()))?;
        let connect = async {
            let builder = match address {
                Some(address) => connection::Builder::address(address)?,
                None => connection::Builder::system()?,
            };
            builder.build().await
        };
        let connected = runtime.block_on(async { tokio::time::timeout(PATIENCE, connect).await });
        let connection = connected.map_err(|_| failed(format!("no answer within {} s", PATIENCE.as_secs())))?;
        Ok(Self { connection: connection.map_err(|error| failed(error.to_string()))?, runtime })
    }

    fn ask<A: serde::Serialize + DynamicType>(&self, method: &str, arguments: &A) -> Result<Message, NfsError> {
        let failed = |problem: String| NfsError::Server { what: format!("NFS-Ganesha, {method}"), problem };
        let call = self.connection.call_method(Some(SERVICE), MANAGER, Some(INTERFACE), method, arguments);
        let replied = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, call).await });
        let reply = replied.map_err(|_| failed(format!("no answer within {} s", PATIENCE.as_secs())))?;
        reply.map_err(|error| failed(error.to_string()))
    }

    fn call<A, R>(&self, method: &str, arguments: &A) -> Result<R, NfsError>
    where
        A: serde::Serialize + DynamicType,
        R: for<'de> serde::Deserialize<'de> + Type,
    {
        let reply = self.ask(method, arguments)?;
        reply.body().deserialize::<R>().map_err(|error| misunderstood(method, &error.to_string()))
    }

    /// Numbers of the exports. The last of each row are counters, which differ from release to release.
    pub(super) fn exports(&self) -> Result<Vec<u16>, NfsError> {
        const METHOD: &str = "ShowExports";
        let reply = self.ask(METHOD, &())?;
        let body = reply.body();
        let fields: Structure<'_> = body.deserialize().map_err(|error| misunderstood(METHOD, &error.to_string()))?;
        let rows = match fields.fields().last() {
            Some(Value::Array(rows)) => rows,
            _ => return Err(misunderstood(METHOD, "no list")),
        };
        let number = |row: &Value<'_>| match row {
            Value::Structure(row) => match row.fields().first() {
                Some(Value::U16(number)) => Some(*number),
                _ => None,
            },
            _ => None,
        };
        let numbers: Option<Vec<u16>> = rows.iter().map(number).collect();
        numbers.ok_or_else(|| misunderstood(METHOD, "a row without a number"))
    }

    pub(super) fn show(&self, number: u16) -> Result<Shown, NfsError> {
        let (_, path, pseudo, _, rows): (u16, String, String, String, Vec<ClientRow>) =
            self.call("DisplayExport", &(number,))?;
        let clients = rows.into_iter().map(|(who, .., options, own)| Client { who, access: access(options, own) });
        Ok(Shown { path, pseudo, clients: clients.collect() })
    }

    /// `file` is read anew, and the export of that number in it takes the place of the one that is served. A file that is
    /// missing, or a directory, ends the server (seen with 4.3): the caller has read it.
    pub(super) fn update(&self, file: &str, number: u16) -> Result<(), NfsError> {
        // With another text it has taken a part of the block, and says what of it not.
        const TAKEN: &str = "1 exports updated";
        let said: String = self.call("UpdateExport", &(file, format!("EXPORT(Export_Id={number})")))?;
        match said.trim() {
            TAKEN => Ok(()),
            said => {
                let what = format!("NFS-Ganesha, UpdateExport of export {number} in {file}");
                Err(NfsError::Server { what, problem: said.replace('\n', " ") })
            }
        }
    }
}

fn misunderstood(method: &str, problem: &str) -> NfsError {
    NfsError::Server {
        what: format!("NFS-Ganesha, {method}"),
        problem: format!("its answer is not understood: {problem}"),
    }
}

/// Of a client that says nothing of its own only the export knows, and that is not shown.
fn access(options: u32, own: u32) -> Access {
    match () {
        () if own & (WRITES | READS) == 0 => Access::Unknown,
        () if options & WRITES != 0 => Access::ReadWrite,
        () if options & READS != 0 => Access::ReadOnly,
        () => Access::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 4.3 answers for each `Access_Type`.
    #[test]
    fn bits_of_a_client_are_its_access() {
        for (options, own, expected) in [
            (53_490_146, 480, Access::ReadWrite),
            (53_489_826, 480, Access::ReadOnly),
            (53_490_050, 480, Access::ReadWrite),
            (53_489_794, 480, Access::ReadOnly),
            (53_489_666, 480, Access::None),
            (53_490_146, 0, Access::Unknown),
        ] {
            assert_eq!(access(options, own), expected, "{options}");
        }
    }
}
