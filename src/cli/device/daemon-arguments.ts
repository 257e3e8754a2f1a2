/** Commands of `piniond` outside `device`. */
const others = new Set(["device", "doctor", "version", "completion", "complete", "help", "machine-report"]);
const aboutItself = new Set(["-h", "--help", "-V", "--version"]);

/**
 * The arguments of `piniond`, converted to those of `pinion`: the word `device` may be left out,
 * and no arguments mean `device run`.
 */
export function daemonArguments(args: readonly string[]): string[] {
  const [first] = args;
  if (first === undefined) return ["device", "run"];
  if (others.has(first) || aboutItself.has(first)) return [...args];
  if (first.startsWith("-"))
    return args.some((word) => others.has(word)) ? [...args] : ["device", "run", ...args];
  return ["device", ...args];
}
