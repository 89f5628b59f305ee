"""How libraries spell what they mean: phrases of a path, synonyms of a word, roles of a tensor."""

import re
from collections.abc import Callable

PHRASES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    # Wrappers of a tensor, then of a module.
    (r"\.parametrizations\.weight\.original0$", ".weight_g"),
    (r"\.parametrizations\.weight\.original1$", ".weight_v"),
    (r"^(module\.|_orig_mod\.|ema_model\.)+", ""),
    # Flax keeps the running statistics of a module in a collection of their own.
    (r"^\.(params|batch_stats)(?=\.)", ""),
    # The head over a vocabulary.
    (
        r"^((?:\.[a-z_]+){0,2})\.(embed_out|unembed|output|output_layer|output_projection|"
        r"proj_out|to_logits)" r"(?=\.(weight|bias)$)",
        r"\1.lm_head",
    ),
    # Lists of parts side by side for blocks: attn_layers.0, norm_layers_1.0.
    (
        r"\.(attn|ffn|norm)_layers(?:_(\d))?\.(\d+)(?=\.)",
        lambda m: f".layers.{m[3]}.{m[1]}{m[2] or ''}",
    ),
    # Attention.
    # NeMo's transformer: with attention to an encoder, its feed-forward is the third.
    (
        r"\.(first|second)_sub_layer(?=\.(query|key|value|out)_)",
        lambda m: ".self_attn" if m[1] == "first" else ".cross_attn",
    ),
    (r"\.(second|third)_sub_layer(?=\.dense_)", ".mlp"),
    (r"\.sa_(?=[qkvo])", ".self_attn."),
    (r"\.ca_(?=[qkvo])", ".cross_attn."),
    (r"\.([qkv])(?=(content|pos)_)", r".\1_"),
    (r"\.(attention|crossattention)\.self\.", r".\1."),
    (r"\.attention\.attention\.", ".attention."),
    (
        r"\.(attention|attn)\.output\.(dense|layer_?norm)",
        lambda m: ".attention.o" if m[2] == "dense" else ".norm1",
    ),
    (r"\.(self_attention|self_attn|attention|attn|mha|sa|mixer)(\.w_msa)?(?=\.)", ".attn"),
    (
        r"\.(crossattention|cross_attention|cross_attn|encoder_attn|encoder_attention|"
        r"encoder_decoder_attention|enc_dec_attention|multihead_attn|src_attn|enc_attn)(?=\.)",
        ".cross.attn",
    ),
    (
        r"\.(to_out\.0|to_out|out_proj|output_proj|out_project|wo|o_proj|dense|c_proj|proj|"
        r"projection)(?=\.[^.]*$)(?<=attn\.o_proj)",
        ".o",
    ),
    (
        r"\.attn\.(to_out\.0|to_out|out_proj|output_proj|attn_out|out|wo|o_proj|dense|c_proj|"
        r"proj|projection|linear_out|out_projection)(?=\.)",
        ".attn.o",
    ),
    (r"\.proj_out_attn(?=\.)|\.proj_attn(?=\.)", ".attn.o"),
    (
        r"[._](query_proj|query|q_proj|to_q|q_lin|wq|linear_q|query_net|"
        r"query_projection)(?=[._])",
        ".q",
    ),
    (r"[._](key_proj|key|k_proj|to_k|k_lin|wk|linear_k|key_net|key_projection)(?=[._])", ".k"),
    (
        r"[._](value_proj|value|v_proj|to_v|v_lin|wv|linear_v|value_net|"
        r"value_projection)(?=[._])",
        ".v",
    ),
    (
        r"[._](query_key_value|qkv_proj|wqkv|c_attn|in_proj|qkv_linear|to_qkv|att_proj|"
        r"attn_proj)(?=[._])",
        ".qkv",
    ),
    (r"[._](to_|in_|w)?(qvk|kqv|kvq|vqk|vkq)(_proj|_linear)?(?=[._])", r".\2"),
    (r"\.(q|query)_(layer_?)?norm(?=\.)", ".qnorm"),
    (r"\.(k|key)_(layer_?)?norm(?=\.)", ".knorm"),
    # Feed-forward.
    (r"\.intermediate\.dense(?=\.)", ".mlp.fc1"),
    (r"(?<!attn)\.output\.dense(?=\.)", ".mlp.fc2"),
    (r"(?<!attn)\.output\.layer_?norm(?=\.)", ".norm2"),
    (r"\.(feed_forward|feedforward|ffn|ff)(?=\.)", ".mlp"),
    (
        r"\.mlp\.(layers\.0|fc_in|c_fc|lin1|linear1|linear_1|wi|0|dense_h_to_4h|dense1|ff0|"
        r"fc_1|dense_in)(?=\.)",
        ".mlp.fc1",
    ),
    (
        r"\.mlp\.(layers\.1|layers\.3|fc_out|c_proj|lin2|linear2|linear_2|3|2|dense_4h_to_h|"
        r"dense2|ff1|fc_2|dense_out)(?=\.)",
        ".mlp.fc2",
    ),
    (r"\.(fc1|lin1|linear1|linear_1)(?=\.)", ".fc1"),
    (r"\.(fc2|lin2|linear2|linear_2)(?=\.)", ".fc2"),
    (r"\.(wo|wqkv)(?=\.[^.]*$)", lambda m: ".attn.o" if m[1] == "wo" else ".attn.qkv"),
    (r"\.w(q|k|v|o|kv)_([ab])(?=\.)", r".\1_\2_proj"),
    (r"\.(wkv)(?=\.)", ".kv_proj"),
    (r"\.(w12|weights_in|gate_up_proj)(?=\.|$)", ".gate_up"),
    (r"\.up_gate_proj(?=\.|$)", ".up_gate"),
    (r"\.weights_out(?=\.)", ".down"),
    (r"\.(w1|gate_proj|wgate)(?=\.)", ".gate"),
    (r"\.(w3|up_proj)(?=\.)", ".up"),
    (r"\.(w2|down_proj)(?=\.)", ".down"),
    # Normalisation.
    (r"layer_norm", "layernorm"),
    (
        r"\.(layernorm_before|input_layernorm|attention_norm|attn_norm|ln_?1|layernorm1|"
        r"norm_1|attn_ln|ln_attn)(?=\.)",
        ".norm1",
    ),
    (r"\.(sa_norm|sa_layernorm)(?=\.)", ".norm1"),
    (
        r"\.(pre|before)_(self_)?(attn|attention)(_norm|_ln|_layernorm)?(?=\.(weight|bias)$)|"
        r"\.(attn|attention)_pre_?(norm|ln)?(?=\.(weight|bias)$)",
        ".norm1",
    ),
    (
        r"\.(self_attn_layernorm|self_attn_norm|self_attention_norm|attention_layernorm|"
        r"attn_layernorm|norm_attn)(?=\.)",
        ".norm1",
    ),
    (
        r"\.(pre|before)_(cross|memory|mem|encoder_attn|enc_attn)(_attn|_attention)?"
        r"(_norm|_ln|_layernorm)?(?=\.(weight|bias)$)|"
        r"\.(cross|memory|mem|enc_attn|src_attn|crossattn|crossattention|cross_attention)_"
        r"(pre_?)?(norm|ln|layernorm)(?=\.)|"
        r"\.(norm|ln|layernorm)_(cross|memory|mem|encoder)(_attn|_attention)?(?=\.)",
        ".crossattn_norm",
    ),
    (
        r"\.(encoder_attn_layernorm|cross_attn_layernorm|cross_attn_ln|cross_attn_norm)(?=\.)",
        ".crossattn_norm",
    ),
    (
        r"\.(layernorm_after|ffn_norm|ff_norm|mlp_norm|ln_?2|layernorm2|output_layernorm|"
        r"norm_2)(?=\.)",
        ".norm2",
    ),
    (
        r"\.(mlp_ln|ln_mlp|ln_ffn|norm_mlp|norm_ffn|ffn_layernorm|mlp_layernorm|"
        r"feed_?forward_(layer)?norm|ff_layernorm)(?=\.)",
        ".norm2",
    ),
    (
        r"\.(pre|before)_(mlp|ffn|ff|feed_?forward)(_norm|_ln|_layernorm)?(?=\.(weight|bias)$)|"
        r"\.(mlp|ffn|ff)_pre_?(norm|ln)?(?=\.(weight|bias)$)",
        ".norm2",
    ),
    (r"(?<=\d)\.final_layernorm(?=\.)", ".norm2"),
    (r"\.pre_feedforward_layernorm(?=\.)", ".norm2"),
    (r"\.(post_attention_layernorm|sa_scale|post_attention_norm)(?=\.)", ".postattn_norm"),
    (
        r"\.(post_feedforward_layernorm|post_mlp_layernorm|mlp_scale|post_mlp_norm)(?=\.)",
        ".postmlp_norm",
    ),
    (r"(batch_?norm|group_?norm|layernorm|norm|bn|ln|gn)(?=[\d._])", "norm"),
    # Embeddings.
    (
        r"\.(embeddings\.)?(patch_embeddings\.projection|patch_embeddings|"
        r"patch_embed\.proj)(?=\.)",
        ".patch",
    ),
    (
        r"\.(word_embeddings|embed_tokens|tok_embeddings|token_embedding|wte|embed_in|"
        r"word_embedding)(?=\.)",
        ".embed.token",
    ),
    (
        r"\.(position_embeddings?|pos_embed|pos_embedding|positional_embedding|wpe|"
        r"position_encodings)(?=\.|$)",
        ".embed.position",
    ),
    (r"\.token_type_embeddings(?=\.)", ".embed.type"),
    (r"\.(cls_token|class_token|class_embedding|cls_tok)(?=\.|$)", ".cls"),
    # Convolutional networks.
    (
        r"\.(downsampling_layer|downsample_layers|downsampling|downsample|shortcut|"
        r"skip_connection)(?=[._])",
        ".downsample",
    ),
    (
        r"\.(layer_scale_parameter|layer_scale_1|layer_scale1|ls1|gamma_1|lambda_1|"
        r"layerscale_1)(?=\.|$)",
        ".scale1",
    ),
    (r"\.(layer_scale_2|layer_scale2|ls2|gamma_2|lambda_2)(?=\.|$)", ".scale2"),
]  # fmt: skip

SYNONYMS = {
    "attention": "attn", "embeddings": "embed", "embedding": "embed", "emb": "embed",
    "embedder": "embed", "embed": "embed", "layers": "block", "layer": "block", "blocks": "block",
    "h": "block", "stages": "stage", "res": "stage", "convolution": "conv", "c": "conv",
    "dwconv": "dw", "depthwise": "dw", "dense": "fc", "linear": "fc", "lin": "fc",
    "proj": "project", "projection": "project", "normalization": "norm", "layernorm": "norm",
    "rmsnorm": "norm", "head": "head", "classifier": "head", "heads": "head", "decoder": "decoder",
    "encoder": "encoder", "feedforward": "mlp", "ffn": "mlp", "reduction": "reduce",
    "squeeze": "reduce", "excitation": "expand", "positional": "position", "pos": "position",
    "rel": "relative", "rpb": "relative", "tok": "token", "sampling": "sample", "vision": "visual",
    "transitions": "transition", "gating": "gate", "router": "gate", "up": "up",
    "dist": "distillation", "distilled": "distillation", "msa": "attn", "module": "", "model": "",
    "pointwise": "pw", "pwconv": "pw",
}  # fmt: skip

WEIGHT, BIAS = "weight", "bias"
ROLES = {
    "weight": WEIGHT, "kernel": WEIGHT, "scale": WEIGHT, "gamma": WEIGHT, "embedding": WEIGHT,
    "w": WEIGHT, "bias": BIAS, "beta": BIAS, "b": BIAS, "offset": BIAS, "lambda1": WEIGHT,
    "running_mean": "mean", "moving_mean": "mean", "mean": "mean", "running_var": "var",
    "moving_variance": "var", "var": "var", "num_batches_tracked": "count",
}  # fmt: skip
ROLE_TAILS = (("_weight", WEIGHT), ("_bias", BIAS))
