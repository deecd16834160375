"""The adapters against the libraries as they are installed; without one its tests fail, as nothing would be known."""

import asyncio
import importlib
import os
from itertools import pairwise
from pathlib import Path

import pytest

from data_schemas.errors import UserError
from data_schemas.params import PipelineParams
from tasks.publish.reorder_config import make_config
from tasks.reorder import ChunkReorder
from tasks.reorder.config import to_json

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
TEXT = "Rope bridges hang between cliffs. A traveller pays one coin, crosses, and looks back; the valley is deep."


def count_words(text: str) -> int:
    return len(text.split())


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    params = PipelineParams.model_validate(
        {"run_name": "r", "corpus": {"sources": ["books"]}, "model": {"base": "demo", "target_length": 1024}}
    )
    path: Path = tmp_path_factory.mktemp("release") / "chunk_reorder.json"
    path.write_text(to_json(make_config(params, [])))
    return path


class TestLangChain:
    @pytest.fixture(autouse=True)
    def library(self) -> None:
        self.documents = importlib.import_module("langchain_core.documents")

    def make(self, number: int, **metadata: object):
        return self.documents.Document(page_content=f"text {number}", metadata=metadata, id=str(number))

    def test_best_stands_first_and_second_best_last(self, config: Path) -> None:
        from tasks.reorder.langchain import RopewayReorder

        given = [self.make(i) for i in range(1, 7)]
        transformer = RopewayReorder(config)
        assert isinstance(transformer, self.documents.BaseDocumentTransformer)
        ordered = transformer.transform_documents(given)
        assert [d.id for d in ordered] == ["1", "3", "5", "6", "4", "2"]
        assert all(d is given[int(d.id) - 1] for d in ordered)
        assert asyncio.run(transformer.atransform_documents(given)) == ordered

    def test_scores_and_budget(self, config: Path) -> None:
        from tasks.reorder.langchain import RopewayReorder

        given = [self.make(i, relevance_score=i / 10) for i in range(1, 5)]
        transformer = RopewayReorder(ChunkReorder.load(config), budget_tokens=6, count_tokens=count_words)
        assert [d.id for d in transformer.transform_documents(given)] == ["4", "2", "3"]
        assert [d.id for d in transformer.transform_documents(given, budget_tokens=4)] == ["4", "3"]

    def test_distances_of_a_vector_store(self, config: Path) -> None:
        from tasks.reorder.langchain import RopewayReorder

        given = [self.make(i, distance=i / 10, relevance_score=1 - i / 10) for i in range(1, 6)]
        assert [d.id for d in RopewayReorder(config, ranking="distance").transform_documents(given)] == [
            "1",
            "3",
            "5",
            "4",
            "2",
        ]
        given = [self.make(i, score=i / 10) for i in range(1, 6)]  # as langchain-community stores call an L2 distance
        with pytest.warns(UserWarning, match="if these are distances set ranking to `distance`"):
            RopewayReorder(config).transform_documents(given)
        assert [d.id for d in RopewayReorder(config, ranking="distance").transform_documents(given)] == [
            "1",
            "3",
            "5",
            "4",
            "2",
        ]

    def test_overlapping_chunks_as_its_splitters_mark_them_are_joined(self, config: Path) -> None:
        from tasks.reorder.langchain import RopewayReorder

        cuts = [(30, 70), (0, 40), (70, 105)]
        given = [
            self.documents.Document(page_content=TEXT[a:b], metadata={"source": "a.txt", "start_index": a}) for a, b in cuts
        ]
        first, second = RopewayReorder(config, join_overlaps=True).transform_documents(given)
        assert (first.page_content, first.metadata) == (TEXT[:70], {"source": "a.txt", "start_index": 0})
        assert second is given[2]
        assert given[0].page_content == TEXT[30:70]


class TestLlamaIndex:
    @pytest.fixture(autouse=True)
    def library(self) -> None:
        self.schema = importlib.import_module("llama_index.core.schema")

    def node(self, number: int, score: float | None, start: int = 0, end: int = 10, document: str | None = None):
        related = {self.schema.NodeRelationship.SOURCE: self.schema.RelatedNodeInfo(node_id=document)} if document else {}
        node = self.schema.TextNode(
            id_=str(number), text=TEXT[start:end], start_char_idx=start, end_char_idx=end, relationships=related
        )
        return self.schema.NodeWithScore(node=node, score=score)

    def test_best_stands_first_and_second_best_last(self, config: Path) -> None:
        from tasks.reorder.llama_index import RopewayReorder

        given = [self.node(i, i / 10) for i in range(1, 7)]
        processor = RopewayReorder(config=str(config))
        ordered = processor.postprocess_nodes(given, query_str="who?")
        assert [n.node_id for n in ordered] == ["6", "4", "2", "1", "3", "5"]
        assert all(n is given[int(n.node_id) - 1] for n in ordered)
        assert asyncio.run(processor.apostprocess_nodes(given)) == ordered
        assert [n.node_id for n in processor.postprocess_nodes([self.node(i, None) for i in range(3)])] == ["0", "2", "1"]

    def test_nodes_that_its_own_postprocessors_add_without_a_score(self, config: Path) -> None:
        from llama_index.core.postprocessor import PrevNextNodePostprocessor
        from llama_index.core.storage.docstore import SimpleDocumentStore

        from tasks.reorder.llama_index import RopewayReorder

        nodes = [self.node(i, 0.9).node for i in range(5)]
        for node, following in pairwise(nodes):
            node.relationships[self.schema.NodeRelationship.NEXT] = self.schema.RelatedNodeInfo(node_id=following.node_id)
        store = SimpleDocumentStore()
        store.add_documents(nodes)
        found = [self.schema.NodeWithScore(node=nodes[0], score=0.9), self.schema.NodeWithScore(node=nodes[3], score=0.5)]
        widened = PrevNextNodePostprocessor(docstore=store, num_nodes=1, mode="next").postprocess_nodes(found)
        assert [n.score for n in widened].count(None) == 2
        with pytest.warns(UserWarning, match="has no score but others have, so all passages keep the given order"):
            ordered = RopewayReorder(config=str(config)).postprocess_nodes(widened)
        assert [n.node_id for n in ordered] == [widened[i].node_id for i in (0, 2, 3, 1)]

    def test_distances(self, config: Path) -> None:
        from tasks.reorder.llama_index import RopewayReorder

        given = [self.node(i, i / 10) for i in range(1, 6)]
        ordered = RopewayReorder(config=str(config), options={"ranking": "distance"}).postprocess_nodes(given)
        assert [n.node_id for n in ordered] == ["1", "3", "5", "4", "2"]

    def test_it_is_written_and_read_again(self, config: Path) -> None:
        from tasks.reorder.llama_index import RopewayReorder

        processor = RopewayReorder(config=str(config), options={"strategy": "reverse_rank"})
        again = RopewayReorder.from_dict(processor.to_dict())
        assert [n.node_id for n in again.postprocess_nodes([self.node(i, None) for i in range(3)])] == ["2", "1", "0"]

    def test_neighbours_stand_together_and_overlaps_are_joined(self, config: Path) -> None:
        from tasks.reorder.llama_index import RopewayReorder

        given = [self.node(0, 0.9, 40, 70, "d"), self.node(1, 0.8, 0, 20, "e"), self.node(2, 0.7, 0, 50, "d")]
        given.append(self.node(3, 0.1, 70, 105, "d"))
        options = {"join_overlaps": True, "keep_adjacent": True}
        ordered = RopewayReorder(config=str(config), options=options).postprocess_nodes(given)
        assert [n.text for n in ordered] == [TEXT[:70], TEXT[70:105], TEXT[:20]]
        assert (ordered[0].score, ordered[0].node.start_char_idx, ordered[0].node.end_char_idx) == (0.9, 0, 70)
        assert given[0].text == TEXT[40:70]


class TestHaystack:
    @pytest.fixture(autouse=True)
    def library(self) -> None:
        self.haystack = importlib.import_module("haystack")

    def ranked(self, n: int):
        return [self.haystack.Document(id=str(i), content=f"text {i}", score=1 / i) for i in range(1, n + 1)]

    def pipeline(self, config: Path):
        from tasks.reorder.haystack import RopewayReorder

        pipeline = self.haystack.Pipeline()
        options = {"count_tokens": count_words, "near_duplicates": 0.9}
        pipeline.add_component("reorder", RopewayReorder(str(config), budget_tokens=12, options=options))
        return pipeline

    def test_a_pipeline_runs_alike_after_a_round_trip_through_yaml(self, config: Path) -> None:
        given = self.ranked(8)
        pipeline = self.pipeline(config)
        ordered = pipeline.run({"reorder": {"documents": given}})["reorder"]["documents"]
        assert [d.id for d in ordered] == ["1", "3", "5", "6", "4", "2"]
        again = self.haystack.Pipeline.loads(pipeline.dumps(), allowed_modules=["tasks.reorder.haystack", __name__])
        assert again.get_component("reorder").options["count_tokens"] is count_words
        assert again.run({"reorder": {"documents": given}})["reorder"]["documents"] == ordered
        fewer = again.run({"reorder": {"documents": given, "budget_tokens": 4}})["reorder"]["documents"]
        assert [d.id for d in fewer] == ["1", "2"]

    def test_a_function_that_was_not_allowed_is_not_imported(self, config: Path) -> None:
        from haystack.core.errors import DeserializationError

        with pytest.raises(DeserializationError, match="count_words"):
            self.haystack.Pipeline.loads(self.pipeline(config).dumps(), allowed_modules=["tasks.reorder.haystack"])

    def test_its_own_ranker_agrees_on_the_order(self, config: Path) -> None:
        from haystack.components.rankers import LostInTheMiddleRanker

        from tasks.reorder.haystack import RopewayReorder

        for n in range(1, 9):
            theirs = LostInTheMiddleRanker().run(documents=self.ranked(n))["documents"]
            assert RopewayReorder(str(config)).run(documents=self.ranked(n))["documents"] == theirs

    def test_distances_and_missing_scores(self, config: Path) -> None:
        from tasks.reorder.haystack import RopewayReorder

        given = [self.haystack.Document(id=str(i), content=f"text {i}", score=i / 10) for i in range(1, 6)]
        component = RopewayReorder(str(config), options={"ranking": "distance"})
        assert [d.id for d in component.run(documents=given)["documents"]] == ["1", "3", "5", "4", "2"]
        given[2] = self.haystack.Document(id="3", content="text 3")
        with pytest.warns(UserWarning, match="Passage 3 has no score"):
            assert [d.id for d in RopewayReorder(str(config)).run(documents=given)["documents"]] == ["1", "3", "5", "4", "2"]

    def test_chunks_as_its_splitter_marks_them_are_joined(self, config: Path) -> None:
        from tasks.reorder.haystack import RopewayReorder

        cuts = [(30, 70), (0, 40)]
        given = [
            self.haystack.Document(content=TEXT[a:b], meta={"source_id": "x", "split_idx_start": a}, score=0.5) for a, b in cuts
        ]
        (joined,) = RopewayReorder(str(config), options={"join_overlaps": True}).run(documents=given)["documents"]
        assert (joined.content, joined.meta) == (TEXT[:70], {"source_id": "x", "split_idx_start": 0})


def test_a_missing_config_is_one_sentence_in_each(tmp_path: Path) -> None:
    from tasks.reorder.langchain import RopewayReorder

    with pytest.raises(UserError, match="Cannot read the reorder config"):
        RopewayReorder(tmp_path)
