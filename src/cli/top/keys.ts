/** The keys in a piece of a terminal's input, by name; text as single characters. */
export function keysOf(input: string): string[] {
  const keys: string[] = [];
  // A sequence arrives in one piece; an unknown sequence is dropped whole.
  for (const [found] of input.matchAll(sequence)) {
    const name = named[found] ?? (found.startsWith(escapeCode) ? "" : found);
    if (name !== "" && (name.length > 1 || name >= " ")) keys.push(name);
  }
  return keys;
}

const escapeCode = "\u001b";
const sequence = new RegExp(`${escapeCode}(?:\\[|O)[0-9;]*[A-Za-z~]|${escapeCode}|[\\s\\S]`, "gu");

const named: Record<string, string> = {
  "\u0003": "ctrl-c",
  "\r": "enter",
  "\n": "enter",
  "\t": "tab",
  "\u007f": "backspace",
  "\b": "backspace",
  "\u001b": "escape",
  "\u001b[A": "up",
  "\u001bOA": "up",
  "\u001b[B": "down",
  "\u001bOB": "down",
  "\u001b[D": "left",
  "\u001b[5~": "pageup",
  "\u001b[6~": "pagedown",
  "\u001b[H": "home",
  "\u001b[1~": "home",
  "\u001b[F": "end",
  "\u001b[4~": "end",
};
