import{ta as n}from"./chunk-JIXCZNK3.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
