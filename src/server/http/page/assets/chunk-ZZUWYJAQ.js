function n(){return crypto.getRandomValues(new Uint32Array(4)).join("-")}export{n as a};
