//! How settings are set: a method each, so that a struct of them can grow.

/// Makes a method of each setting's name, which sets it and gives the settings back, to be chained.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $type) -> Self {
            self.$name = $name;
            self
        }
    )*};
}
pub(crate) use setters;
