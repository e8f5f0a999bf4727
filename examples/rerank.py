"""Order documents by relevance to a query. usage: rerank.py [MODEL]

`tiny-random-reranker` has random weights: it shows the API only. Use a trained reranker.
"""

import sys

from cyllama import LLM

DOCUMENTS = ["Paris is the capital of France.", "Bread is made of flour.", "Berlin lies on the Spree."]

with LLM(sys.argv[1] if len(sys.argv) > 1 else "tiny-random-reranker", reranking=True) as llm:
    for result in llm.rerank("What is the capital of France?", DOCUMENTS):
        print(f"{result.relevance_score:8.4f}  {DOCUMENTS[result.index]}")
