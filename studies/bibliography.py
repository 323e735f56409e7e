"""Where published methods were published: a BibTeX entry for each method of a table.

Authors, titles, venues and arXiv identifiers are those of the papers' own citation notes or of the
reference lists of several later papers. Pages, volumes and publishers are left out throughout.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from studies.latex import escaped

_CVPR = "Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition"
_ICCV = "Proceedings of the IEEE/CVF International Conference on Computer Vision"


@dataclass(frozen=True)
class Reference:
    """A paper.

    Attributes:
        key: Its BibTeX key: the method's name in this library.
        authors: All authors, in the paper's order, as "Given Family".
        title: The title; braces keep capitals.
        venue: Proceedings or journal; empty where only arXiv is known.
        year: Year of the venue, or of arXiv.
        arxiv: Its arXiv identifier.
        journal: Whether the venue is a journal.
    """

    key: str
    authors: tuple[str, ...]
    title: str
    venue: str
    year: int
    arxiv: str
    journal: bool = False


def _authors(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


REFERENCES: dict[str, Reference] = {
    reference.key: reference
    for reference in (
        Reference(
            "visiondrop",
            _authors("Rui Xu, Yunke Wang, Yong Luo, Bo Du"),
            "Rethinking Visual Token Reduction in {LVLM}s under Cross-modal Misalignment",
            "Proceedings of the AAAI Conference on Artificial Intelligence",
            2026,
            "2506.22283",
        ),
        Reference(
            "desap",
            _authors(
                "Kexin Ma, Jing Xiao, Chaofeng Chen, Geyong Min, Guibo Zhu, Jinqiao Wang, "
                "Liang Liao"
            ),
            "Decoupled Similarity for Task-Aware Token Pruning in Large Vision-Language Models",
            "",
            2026,
            "2604.11240",
        ),
        Reference(
            "fastv",
            _authors(
                "Liang Chen, Haozhe Zhao, Tianyu Liu, Shuai Bai, Junyang Lin, Chang Zhou, "
                "Baobao Chang"
            ),
            "An Image is Worth 1/2 Tokens After Layer 2: Plug-and-Play Inference Acceleration for "
            "Large Vision-Language Models",
            "European Conference on Computer Vision",
            2024,
            "2403.06764",
        ),
        Reference(
            "pyramiddrop",
            _authors(
                "Long Xing, Qidong Huang, Xiaoyi Dong, Jiajie Lu, Pan Zhang, Yuhang Zang, "
                "Yuhang Cao, Conghui He, Jiaqi Wang, Feng Wu, Dahua Lin"
            ),
            "Conical Visual Concentration for Efficient Large Vision-Language Models",
            _CVPR,
            2025,
            "2410.17247",
        ),
        Reference(
            "sparsevlm",
            _authors(
                "Yuan Zhang, Chun-Kai Fan, Junpeng Ma, Wenzhao Zheng, Tao Huang, Kuan Cheng, "
                "Denis A. Gudovskiy, Tomoyuki Okuno, Yohei Nakata, Kurt Keutzer, Shanghang Zhang"
            ),
            "{SparseVLM}: Visual Token Sparsification for Efficient Vision-Language Model "
            "Inference",
            "Proceedings of the 42nd International Conference on Machine Learning",
            2025,
            "2410.04417",
        ),
        Reference(
            "visionzip",
            _authors(
                "Senqiao Yang, Yukang Chen, Zhuotao Tian, Chengyao Wang, Jingyao Li, Bei Yu, "
                "Jiaya Jia"
            ),
            "{VisionZip}: Longer is Better but Not Necessary in Vision Language Models",
            _CVPR,
            2025,
            "2412.04467",
        ),
        Reference(
            "vispruner",
            _authors(
                "Qizhe Zhang, Aosong Cheng, Ming Lu, Renrui Zhang, Zhiyong Zhuo, Jiajun Cao, "
                "Shaobo Guo, Qi She, Shanghang Zhang"
            ),
            "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in "
            "{VLM}s",
            _ICCV,
            2025,
            "2412.01818",
        ),
        Reference(
            "cdpruner",
            _authors(
                "Qizhe Zhang, Mengzhen Liu, Lichen Li, Ming Lu, Yuan Zhang, Junwen Pan, Qi She, "
                "Shanghang Zhang"
            ),
            "Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in "
            "{MLLM}s",
            "Advances in Neural Information Processing Systems",
            2025,
            "2506.10967",
        ),
        Reference(
            "vscan",
            _authors(
                "Ce Zhang, Kaixin Ma, Tianqing Fang, Wenhao Yu, Hongming Zhang, Zhisong Zhang, "
                "Haitao Mi, Dong Yu"
            ),
            "{VScan}: Rethinking Visual Token Reduction for Efficient Large Vision-Language Models",
            "Transactions on Machine Learning Research",
            2026,
            "2505.22654",
            journal=True,
        ),
        Reference(
            "flowcut",
            _authors(
                "Jintao Tong, Wenwei Jin, Pengda Qin, Anqi Li, Yixiong Zou, Yuhong Li, Yuhua Li, "
                "Ruixuan Li"
            ),
            "{FlowCut}: Rethinking Redundancy via Information Flow for Efficient Vision-Language "
            "Models",
            "Advances in Neural Information Processing Systems",
            2025,
            "2505.19536",
        ),
        Reference(
            "dart",
            _authors(
                "Zichen Wen, Yifeng Gao, Shaobo Wang, Junyuan Zhang, Qintong Zhang, Weijia Li, "
                "Conghui He, Linfeng Zhang"
            ),
            "Stop Looking for ``Important Tokens'' in Multimodal Language Models: Duplication "
            "Matters More",
            "Proceedings of the 2025 Conference on Empirical Methods in Natural Language "
            "Processing",
            2025,
            "2502.11494",
        ),
        Reference(
            "divprune",
            _authors("Saeed Ranjbar Alvar, Gursimran Singh, Mohammad Akbari, Yong Zhang"),
            "{DivPrune}: Diversity-Based Visual Token Pruning for Large Multimodal Models",
            _CVPR,
            2025,
            "2503.02175",
        ),
        Reference(
            "tome",
            _authors(
                "Daniel Bolya, Cheng-Yang Fu, Xiaoliang Dai, Peizhao Zhang, "
                "Christoph Feichtenhofer, Judy Hoffman"
            ),
            "Token Merging: Your {ViT} but Faster",
            "International Conference on Learning Representations",
            2023,
            "2210.09461",
        ),
    )
}
"""The papers of the published methods, by the name that `pruners.published` knows them under."""


def bibtex(names: Iterable[str]) -> str:
    """Write the BibTeX entries of some methods.

    Args:
        names: Names of schedules in results. Those that are no published method, such as
            ``"searched"`` and ``"dense"``, have no entry.

    Returns:
        The content of a ``.bib`` file, entries in the order given, each once.
    """
    known = [REFERENCES[name] for name in dict.fromkeys(names) if name in REFERENCES]
    return "\n".join(_entry(reference) for reference in known)


def _entry(reference: Reference) -> str:
    if not reference.venue:
        kind, venue = "misc", [("howpublished", f"arXiv:{reference.arxiv}")]
    elif reference.journal:
        kind, venue = "article", [("journal", reference.venue)]
    else:
        kind, venue = "inproceedings", [("booktitle", reference.venue)]
    return _formatted(
        kind,
        reference.key,
        [
            ("author", " and ".join(map(_family_last, reference.authors))),
            ("title", reference.title),
            *venue,
            ("year", str(reference.year)),
            ("eprint", reference.arxiv),
            ("archiveprefix", "arXiv"),
            ("url", f"https://arxiv.org/abs/{reference.arxiv}"),
        ],
    )


def _formatted(kind: str, key: str, fields: Sequence[tuple[str, str]]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields]
    return "\n".join([f"@{kind}{{{key},", *lines, "}", ""])


def _family_last(author: str) -> str:
    """An author as "Family, Given", so that no style guesses where the family name begins."""
    given, _, family = author.rpartition(" ")
    return f"{escaped(family)}, {escaped(given)}"
