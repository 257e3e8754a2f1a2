/** The names of cells in tokens and codes: a front door routes by the name. */

/**
 * The header that names a cell for a call without a token, and in the answer of a cell that an org
 * has left.
 */
export const CELL_HEADER = "pinion-cell";

const TOKEN = /^(pin_(?:pat|dev|svc)_)(?:([a-z][a-z0-9]{0,15})_)?([0-9A-Za-z]{30}_[0-9a-f]{8})$/;
const CODE = /^([a-z][a-z0-9]{0,15})_[0-9A-Za-z]{30}$/;
const JOIN_CODE = /^([A-Z][A-Z0-9]{0,15})-[A-Z0-9]{4}(?:-[A-Z0-9]{4}){3}$/;

/** The cell named in a token, a join code or a sign-in code; "" for none. */
export function cellOf(text: string): string {
  const found =
    TOKEN.exec(text)?.[2] ?? CODE.exec(text)?.[1] ?? JOIN_CODE.exec(text.trim().toUpperCase())?.[1];
  return found?.toLowerCase() ?? "";
}

/** The token with another cell's name. The name is no part of the secret. */
export function renameToken(token: string, cell: string): string {
  const match = TOKEN.exec(token);
  return match ? `${match[1]}${cell}_${match[3]}` : token;
}
