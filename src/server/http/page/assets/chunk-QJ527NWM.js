import{Ca as n}from"./chunk-5B4GNH5Z.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
