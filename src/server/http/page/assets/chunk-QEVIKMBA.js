import{xa as n}from"./chunk-3IEAOCSV.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
