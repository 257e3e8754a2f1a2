/**
 * Prints the ratios of comments and pages, the files with the worst ratios, and the comments that
 * are too wide. Never fails. `npm run check:prose`
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { commentColumnsMax, countWideLines } from "./lib/comments.ts";
import { commentsOf, goals, measure, pageText, ratiosOf } from "./lib/prose.ts";

const worstShown = 8;
const wordsMin = 150;

type Source = { path: string; text: string };

const sources = execFileSync("git", ["ls-files"], { encoding: "utf8" })
  .split("\n")
  .filter((path) => /\.(tsx?|sql|proto|md)$/.test(path))
  // Generated code and other people's definitions.
  .filter((path) => !/^(clients\/ts\/src\/gen|proto\/(buf|google|grpc)|src\/server\/http\/page)\//.test(path))
  .map((path) => ({ path, text: readFileSync(path, "utf8") }));

const having = (pattern: RegExp) => sources.filter(({ path }) => pattern.test(path));
const code = having(/^(src|clients|web|test|bench|scripts|examples)\/.*\.(tsx?|sql)$/);
const definitions = having(/\.proto$/);

reportRatios("comments", code, ({ path, text }) => commentsOf(path, text));
reportRatios("comments of the API", definitions, ({ path, text }) => commentsOf(path, text));
reportRatios("pages", having(/\.md$/), ({ text }) => [pageText(text)]);
// A migration never changes after its commit.
reportWidths([...code, ...definitions].filter(({ path }) => !path.includes("/migrations/")));

function reportRatios(name: string, files: readonly Source[], textsOf: (file: Source) => string[]): void {
  const measured = files.map((file) => ({ path: file.path, prose: measure(textsOf(file)) }));
  const all = measured.reduce(
    (sum, { prose }) => ({
      words: sum.words + prose.words,
      pronouns: sum.pronouns + prose.pronouns,
      clauses: sum.clauses + prose.clauses,
      persons: sum.persons + prose.persons,
    }),
    { words: 0, pronouns: 0, clauses: 0, persons: 0 },
  );
  const { pronouns, clauses, persons } = ratiosOf(all);
  const text = (value: number, goal: number) =>
    `${value.toFixed(1)}${value > goal ? ` (goal: ${goal})` : ""}`;
  console.log(
    `${name}: per 1,000 of ${all.words} words ${text(pronouns, goals.pronouns)} pronouns, ` +
      `${text(clauses, goals.clauses)} clauses as subjects, ${text(persons, goals.persons)} persons without a name`,
  );
  printWorst(
    measured
      .filter(({ prose }) => prose.words >= wordsMin)
      .map(({ path, prose }) => ({ path, value: ratiosOf(prose).pronouns }))
      .filter(({ value }) => value > goals.pronouns),
  );
}

function reportWidths(files: readonly Source[]): void {
  const wide = files
    .map(({ path, text }) => ({ path, value: countWideLines(path, text) }))
    .filter(({ value }) => value > 0);
  const lines = wide.reduce((sum, { value }) => sum + value, 0);
  console.log(`widths: ${lines} lines of comments are wider than ${commentColumnsMax} columns`);
  printWorst(wide);
}

function printWorst(files: readonly { path: string; value: number }[]): void {
  const worst = [...files].sort((a, b) => b.value - a.value).slice(0, worstShown);
  for (const { path, value } of worst) console.log(`  ${value.toFixed(0).padStart(4)}  ${path}`);
}
