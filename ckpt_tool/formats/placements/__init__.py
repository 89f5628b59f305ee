"""Where the bytes of tensors lie: ranges of files, views with strides, boxes of several files."""
