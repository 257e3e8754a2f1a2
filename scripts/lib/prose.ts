/**
 * Measures how often comments and pages hide the subjects of their sentences. Ratios per 1,000
 * words, for a warning: in code bases known for their comments the first ratio is 28 to 53, the
 * second below 1 and the third below 0.1.
 */
import { findComments } from "./comments.ts";

export type Prose = {
  words: number;
  /** "it", "that", "one", "what", "which" and their kin. */
  pronouns: number;
  /** "what is …", "the one that …", "those that …". */
  clauses: number;
  /** "whoever", "nobody", "somebody". */
  persons: number;
};

const pronoun = /^(it|its|that|this|these|those|one|ones|what|which|who|whom|whose)$/;
const person = /^(whoever|whatever|nobody|somebody|anybody|everybody)$/;
const clause =
  /\b(?:what (?:is|are|was|were|it|they|he|she)|(?:the )?(?:one|ones|those|that) (?:that|which|who))\b/gi;

export const goals = { pronouns: 55, clauses: 2, persons: 0.5 };

/** A word that asks, in a sentence that ends in a question mark, hides no subject. */
const asking = /\b(?:what|which|who|whom|whose)\b(?=[^.!?|]*\?)/gi;

/** Counts in texts: comments of code, or the prose of pages. */
export function measure(texts: readonly string[]): Prose {
  const prose = { words: 0, pronouns: 0, clauses: 0, persons: 0 };
  for (const written of texts) {
    const text = written.replaceAll(asking, "asks");
    const words = text.toLowerCase().match(/[a-z]+/g) ?? [];
    prose.words += words.length;
    prose.pronouns += words.filter((word) => pronoun.test(word)).length;
    prose.persons += words.filter((word) => person.test(word)).length;
    prose.clauses += text.match(clause)?.length ?? 0;
  }
  return prose;
}

export function ratiosOf(prose: Prose): { pronouns: number; clauses: number; persons: number } {
  const per = (count: number) => (prose.words === 0 ? 0 : (count / prose.words) * 1_000);
  return { pronouns: per(prose.pronouns), clauses: per(prose.clauses), persons: per(prose.persons) };
}

/** The texts of a source's comments, without their marks. */
export function commentsOf(path: string, source: string): string[] {
  return findComments(path, source).map(({ text }) =>
    text.replace(/^(?:\/\*\*?|\/\/|--)\s?|\*\/$/g, "").replace(/^\s*\*/gm, ""),
  );
}

/** The prose of a page: without code, tables of names and links' addresses. */
export function pageText(text: string): string {
  return text
    .replace(/```[\s\S]*?```/g, "")
    .replace(/`[^`]*`/g, "")
    .replace(/\]\([^)]*\)/g, "]");
}
