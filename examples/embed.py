"""Find the most similar sentence with embeddings."""

from cyllama import LLM

SENTENCES = ["A man is eating food.", "The weather is fine today.", "A cheetah chases its prey."]

with LLM("minilm-l6", embedding=True) as llm:
    query, *vectors = llm.embed(["Somebody has lunch.", *SENTENCES])
    for sentence, vector in sorted(zip(SENTENCES, vectors, strict=True), key=lambda pair: -(pair[1] @ query)):
        print(f"{vector @ query:.2f}  {sentence}")
