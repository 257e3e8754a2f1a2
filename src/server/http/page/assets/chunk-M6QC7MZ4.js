import{ha as n}from"./chunk-DZWC5DTV.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
