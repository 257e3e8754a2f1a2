import { describe, expect, test } from "vitest";
import { countWideLines, findComments } from "../../scripts/lib/comments.ts";
import { commentsOf, measure, pageText } from "../../scripts/lib/prose.ts";

const textsOf = (path: string, source: string) => findComments(path, source).map(({ text }) => text);

describe("comments of TypeScript", () => {
  test("are found behind code, in blocks, and in the expressions of templates", () => {
    const source = [
      "const a = 1; // behind code",
      "/** A block",
      " * of two lines. */",
      `const b = \`text \${/* in an expression */ \`\${a} // no comment\`} // no comment\`;`,
    ].join("\n");
    expect(textsOf("a.ts", source)).toEqual([
      "// behind code",
      "/** A block\n * of two lines. */",
      "/* in an expression */",
    ]);
  });

  test("are not found in strings, templates and regular expressions", () => {
    const source = [
      "const url = \"http://x/*\" + '// y';",
      `const sql = \`select 1 /* few */ -- \${ { a: \`}\` }.a } // text\`;`,
      "const pattern = /[/]\\/\\/ x*/g.test(url) || a / b / c;",
      "const element = <p>It's a text</p>; // a comment",
    ].join("\n");
    expect(textsOf("a.tsx", source)).toEqual(["// a comment"]);
  });
});

test("comments of SQL and proto are not found in strings", () => {
  expect(textsOf("a.sql", "select '-- it''s a string'; -- a comment\n/* a block */")).toEqual([
    "-- a comment",
    "/* a block */",
  ]);
  expect(textsOf("a.proto", 'string a = 1 [pattern = "//x"]; // a comment')).toEqual(["// a comment"]);
});

test("the texts of comments have no marks", () => {
  const source = "/**\n * One.\n * Two.\n */\n// Three.";
  expect(commentsOf("a.ts", source).map((text) => text.split(/\s+/).filter(Boolean))).toEqual([
    ["One.", "Two."],
    ["Three."],
  ]);
  expect(commentsOf("a.sql", "-- One.")).toEqual(["One."]);
});

describe("wide lines", () => {
  const words = (length: number) => "x".repeat(length);

  test("count from the column after the 100th, with the indent and the code before the comment", () => {
    expect(countWideLines("a.ts", `// ${words(97)}`)).toBe(0);
    expect(countWideLines("a.ts", `// ${words(98)}`)).toBe(1);
    expect(countWideLines("a.proto", `  // ${words(96)}`)).toBe(1);
    expect(countWideLines("a.sql", `select 1; -- ${words(90)}`)).toBe(1);
  });

  test("are counted one by one in a block, by characters and not by bytes", () => {
    expect(countWideLines("a.ts", `/**\n * ${words(98)}\n * ${words(97)}\n * ${words(99)}\n */`)).toBe(2);
    expect(countWideLines("a.ts", `// ${"…".repeat(97)}`)).toBe(0);
  });

  test("are not lines of code or of templates", () => {
    expect(countWideLines("a.ts", `const a = "${words(120)}";`)).toBe(0);
    expect(countWideLines("a.ts", `const a = \`\n  // ${words(120)}\n\`;`)).toBe(0);
  });
});

test("pronouns, clauses and persons are counted among the words", () => {
  expect(measure(["What is sent goes to whoever asks.", "The server sends the answer."])).toEqual({
    words: 12,
    pronouns: 1,
    clauses: 1,
    persons: 1,
  });
});

test("the words of a question hide no subject", () => {
  expect(measure(["| What is a run, and which device takes it? | Which is told."])).toMatchObject({
    words: 12,
    pronouns: 2,
    clauses: 0,
  });
});

test("the prose of a page has no code and no addresses of links", () => {
  expect(pageText("See `it` and [a page](what.md).\n```\nthat\n```\n").trim()).toBe("See  and [a page].");
});
