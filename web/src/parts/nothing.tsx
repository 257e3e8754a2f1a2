/** A cell with nothing to say. */
export function Nothing() {
  return <span class="none">–</span>;
}
