"""Order documents by how well they answer a query. usage: rerank.py [MODEL]

The registry's reranker has random weights: it shows how it is done, not which document is best. Give it a real one.
"""

import sys

from cyllama import LLM

DOCUMENTS = ["Paris is the capital of France.", "Bread is made of flour.", "Berlin lies on the Spree."]

with LLM(sys.argv[1] if len(sys.argv) > 1 else "tiny-random-reranker", reranking=True) as llm:
    for found in llm.rerank("What is the capital of France?", DOCUMENTS):
        print(f"{found.relevance_score:8.4f}  {DOCUMENTS[found.index]}")
