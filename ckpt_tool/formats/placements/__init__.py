"""Where the bytes of tensors lie: ranges of files, views with strides, and what is made of several."""
