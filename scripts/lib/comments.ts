/**
 * Finds the comments of TypeScript, SQL and proto sources, but no strings in the form of comments.
 * The scanner skips strings, templates and regular expressions, and does not parse.
 */

export type Comment = {
  /** The offset of the comment's first character. */
  at: number;
  /** The comment as written, with its marks. */
  text: string;
};

/** The last column for a comment. */
export const commentColumnsMax = 100;

/** The comments of a source, in order. The end of `path` names the language. */
export function findComments(path: string, source: string): Comment[] {
  if (path.endsWith(".sql")) return [...source.matchAll(sqlToken)].flatMap(commentOf("--"));
  if (path.endsWith(".proto")) return [...source.matchAll(protoToken)].flatMap(commentOf("//"));
  return scan(source);
}

const sqlToken = /'(?:[^']|'')*'|--[^\n]*|\/\*[\s\S]*?\*\//g;
const protoToken = /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\/\/[^\n]*|\/\*[\s\S]*?\*\//g;

const commentOf =
  (mark: string) =>
  ({ 0: text, index }: RegExpExecArray): Comment[] =>
    text.startsWith(mark) || text.startsWith("/*") ? [{ at: index, text }] : [];

const comment = /\/\/[^\n]*|\/\*[\s\S]*?\*\//y;
const quoted = /"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/y;
const regularExpression = /\/(?![*/])(?:[^\\/[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/y;
/** A text of a template up to its end or to a `${`. */
const template = /(?:[^`\\$]|\\[\s\S]|\$(?!\{))*(?:`|\$\{)/y;
/** After these characters or words a slash begins a regular expression, not a division. */
const beforeExpression =
  /(?:^|[(,=:[!&|?{;+\-*%~^]|=>|\b(?:return|typeof|case|in|of|do|else|yield|await))\s*$/;

function scan(source: string): Comment[] {
  const comments: Comment[] = [];
  // One entry for each open `${`: the number of open braces in the expression.
  const openBraces: number[] = [];
  let at = 0;
  /** Steps over a token; undefined without the token at this place. */
  const take = (token: RegExp): string | undefined => {
    token.lastIndex = at;
    const text = token.exec(source)?.[0];
    if (text !== undefined) at += text.length;
    return text;
  };
  const takeTemplate = () => {
    if (take(template)?.endsWith("${")) openBraces.push(0);
  };
  while (at < source.length) {
    const character = source[at];
    const from = at;
    if (character === "/") {
      const text = take(comment);
      if (text !== undefined) comments.push({ at: from, text });
      else if (!(beforeExpression.test(source.slice(Math.max(0, at - 40), at)) && take(regularExpression)))
        at++;
    } else if (character === '"' || character === "'") {
      // An apostrophe in the text of an element ends nothing.
      if (take(quoted) === undefined) at++;
    } else {
      at++;
      const inner = openBraces.length - 1;
      if (character === "`") takeTemplate();
      else if (inner >= 0 && character === "{") openBraces[inner]! += 1;
      else if (inner >= 0 && character === "}") {
        if (openBraces[inner] === 0) {
          openBraces.pop();
          takeTemplate();
        } else openBraces[inner]! -= 1;
      }
    }
  }
  return comments;
}

/** The number of lines with a comment beyond the last column. */
export function countWideLines(path: string, source: string): number {
  return findComments(path, source).reduce((sum, { at, text }) => {
    const before = source.slice(source.lastIndexOf("\n", at - 1) + 1, at);
    return sum + `${before}${text}`.split("\n").filter((line) => [...line].length > commentColumnsMax).length;
  }, 0);
}
