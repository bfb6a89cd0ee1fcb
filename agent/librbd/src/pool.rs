//! A pool, or a namespace of it.

mod groups;
mod images;
mod mirroring;
mod trash;

use std::{fmt, sync::Arc};

use crate::{
    Cluster, Error, Object,
    cluster::ClusterHandle,
    error::call,
    ffi::{Functions, Plain, rados_ioctx_t},
    reply::filled_one,
    text::{names_of, to_c},
};

pub use groups::{GroupImage, GroupSnapshot};
pub use images::{Access, ImageEntry, ImageRef};
pub use mirroring::{MirroredImage, Peer, PeerAttributes};
pub use trash::TrashEntry;

/// A pool, or a namespace of it. Cheap to clone; keeps the connection.
#[derive(Clone)]
pub struct Pool(pub(crate) Arc<PoolHandle>);

pub(crate) struct PoolHandle {
    pub(crate) cluster: Arc<ClusterHandle>,
    pub(crate) raw: rados_ioctx_t,
    id: i64,
    namespace: String,
}

// SAFETY: librados locks what belongs to an I/O context; what is not thread-safe (namespace, locator) is set before it is shared.
unsafe impl Send for PoolHandle {}
// SAFETY: as above.
unsafe impl Sync for PoolHandle {}

impl PoolHandle {
    pub(crate) fn new(cluster: &Arc<ClusterHandle>, id: i64, namespace: &str) -> Result<Arc<Self>, Error> {
        let name = to_c("rados_ioctx_set_namespace", namespace)?;
        let mut raw = rados_ioctx_t::zeroed();
        // SAFETY: a connected handle; a place for the context.
        unsafe { call!(cluster.functions, rados_ioctx_create2(cluster.raw, id, &raw mut raw)) }?;
        // SAFETY: a context that nothing else uses yet; a C string.
        unsafe { (cluster.functions.rados_ioctx_set_namespace)(raw, name.as_ptr()) };
        Ok(Arc::new(Self { cluster: Arc::clone(cluster), raw, id, namespace: namespace.to_owned() }))
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.cluster.functions
    }
}

impl Drop for PoolHandle {
    fn drop(&mut self) {
        // SAFETY: made by rados_ioctx_create2; images and objects held this handle and are gone.
        unsafe { (self.cluster.functions.rados_ioctx_destroy)(self.raw) };
    }
}

impl Pool {
    pub(crate) fn functions(&self) -> &Functions {
        self.0.functions()
    }

    pub fn id(&self) -> i64 {
        self.0.id
    }

    /// Empty for the default one.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    pub fn cluster(&self) -> Cluster {
        Cluster(Arc::clone(&self.0.cluster))
    }

    /// The same pool with another namespace, whether or not it exists: images in a missing one are NotFound.
    pub fn with_namespace(&self, namespace: &str) -> Result<Self, Error> {
        PoolHandle::new(&self.0.cluster, self.0.id, namespace).map(Self)
    }

    /// An object by its name, whether or not it exists.
    /// Names of its namespaces, without the default one.
    pub fn namespaces(&self) -> Result<Vec<String>, Error> {
        let names = filled_one::<u8>("rbd_namespace_list", 1024, |buffer, size| {
            // SAFETY: a pool; a buffer of that size.
            unsafe { (self.functions().rbd_namespace_list)(self.0.raw, buffer.cast(), size) }.into()
        })?;
        Ok(names_of(&names))
    }

    pub fn object(&self, name: &str) -> Result<Object, Error> {
        Object::new(self, name)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({}, {:?})", self.0.id, self.0.namespace)
    }
}
