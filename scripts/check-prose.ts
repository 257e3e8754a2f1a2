/**
 * Prints the ratios of comments and pages, and the files with the worst ratios. Never fails. `npm
 * run check:prose`
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { commentsOf, goals, measure, pageText, ratiosOf } from "./lib/prose.ts";

const worstShown = 8;
const wordsMin = 150;

const listed = execFileSync("git", ["ls-files"], { encoding: "utf8" }).split("\n");
const isOurs = (path: string) =>
  !/^(clients\/ts\/src\/gen|proto\/(buf|google|grpc)|src\/server\/http\/page)\//.test(path);
const files = (pattern: RegExp, textsOf: (path: string, text: string) => string[]) =>
  listed
    .filter((path) => pattern.test(path) && isOurs(path))
    .map((path) => ({ path, prose: measure(textsOf(path, readFileSync(path, "utf8"))) }));

report("comments", files(/^(src|clients|web|test|bench|scripts)\/.*\.(ts|tsx|sql)$/, commentsOf));
report(
  "pages",
  files(/\.md$/, (_, text) => [pageText(text)]),
);

function report(name: string, measured: { path: string; prose: ReturnType<typeof measure> }[]): void {
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
  const worst = measured
    .filter(({ prose }) => prose.words >= wordsMin)
    .map(({ path, prose }) => ({ path, ...ratiosOf(prose) }))
    .filter((file) => file.pronouns > goals.pronouns)
    .sort((a, b) => b.pronouns - a.pronouns)
    .slice(0, worstShown);
  for (const { path, pronouns } of worst) console.log(`  ${pronouns.toFixed(0).padStart(4)}  ${path}`);
}
