/** An empty cell. */
export function Nothing() {
  return <span class="none">–</span>;
}
