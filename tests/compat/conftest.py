from mmvitcompress.compat import install

install()
